// nbody.c in JavaScript.
'use strict';
const fs = require('fs');

function place() {
	const bodies = [];
	for (let k = 0; k < 5; k++)
		bodies.push({x: 0.5, y: 0.5, z: 0.5, vx: 0.5, vy: 0.5, vz: 0.5, mass: 0.5}); // doubles from the start
	for (const b of bodies) {
		b.x = b.y = b.z = b.vx = b.vy = b.vz = 0;
		b.mass = 1;
	}
	for (let k = 1; k < 5; k++) {
		const b = bodies[k];
		const r = 1.3 * k + 0.1 * k * k, v = Math.sqrt(1 / r), side = k < 3 ? 1 : -1;
		b.mass = 1e-3 / k;
		b.z = 0.02 * r;
		if (k % 2) {
			b.x = side * r;
			b.vy = side * v;
		} else {
			b.y = side * r;
			b.vx = -side * v;
		}
	}
	return bodies;
}

function step(bodies, dt) {
	for (let i = 0; i < bodies.length; i++) {
		const a = bodies[i];
		for (let j = i + 1; j < bodies.length; j++) {
			const b = bodies[j];
			const dx = a.x - b.x, dy = a.y - b.y, dz = a.z - b.z;
			const square = dx * dx + dy * dy + dz * dz;
			const pull = dt / (square * Math.sqrt(square));
			a.vx -= dx * b.mass * pull;
			a.vy -= dy * b.mass * pull;
			a.vz -= dz * b.mass * pull;
			b.vx += dx * a.mass * pull;
			b.vy += dy * a.mass * pull;
			b.vz += dz * a.mass * pull;
		}
	}
	for (const b of bodies) {
		b.x += dt * b.vx;
		b.y += dt * b.vy;
		b.z += dt * b.vz;
	}
}

function energy(bodies) {
	let e = 0;
	for (let i = 0; i < bodies.length; i++) {
		const a = bodies[i];
		e += a.mass * (a.vx * a.vx + a.vy * a.vy + a.vz * a.vz) / 2;
		for (let j = i + 1; j < bodies.length; j++) {
			const b = bodies[j];
			const dx = a.x - b.x, dy = a.y - b.y, dz = a.z - b.z;
			e -= a.mass * b.mass / Math.sqrt(dx * dx + dy * dy + dz * dz);
		}
	}
	return e;
}

const bodies = place();
const steps = Number(process.argv[2]);
fs.writeSync(1, 'start\n');
for (let i = 0; i < steps; i++)
	step(bodies, 0.001);
fs.writeSync(1, `end ${energy(bodies)}\n`);
