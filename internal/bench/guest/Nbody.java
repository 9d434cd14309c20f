/** nbody.c in Java. */
final class Nbody {
	private static final class Body {
		double x, y, z, vx, vy, vz, mass = 1;
	}

	private static Body[] place() {
		Body[] bodies = new Body[5];
		for (int k = 0; k < bodies.length; k++)
			bodies[k] = new Body();
		for (int k = 1; k < bodies.length; k++) {
			Body b = bodies[k];
			double r = 1.3 * k + 0.1 * k * k, v = Math.sqrt(1 / r), side = k < 3 ? 1 : -1;
			b.mass = 1e-3 / k;
			b.z = 0.02 * r;
			if (k % 2 == 1) {
				b.x = side * r;
				b.vy = side * v;
			} else {
				b.y = side * r;
				b.vx = -side * v;
			}
		}
		return bodies;
	}

	private static void step(Body[] bodies, double dt) {
		for (int i = 0; i < bodies.length; i++) {
			Body a = bodies[i];
			for (int j = i + 1; j < bodies.length; j++) {
				Body b = bodies[j];
				double dx = a.x - b.x, dy = a.y - b.y, dz = a.z - b.z;
				double square = dx * dx + dy * dy + dz * dz;
				double pull = dt / (square * Math.sqrt(square));
				a.vx -= dx * b.mass * pull;
				a.vy -= dy * b.mass * pull;
				a.vz -= dz * b.mass * pull;
				b.vx += dx * a.mass * pull;
				b.vy += dy * a.mass * pull;
				b.vz += dz * a.mass * pull;
			}
		}
		for (Body b : bodies) {
			b.x += dt * b.vx;
			b.y += dt * b.vy;
			b.z += dt * b.vz;
		}
	}

	private static double energy(Body[] bodies) {
		double e = 0;
		for (int i = 0; i < bodies.length; i++) {
			Body a = bodies[i];
			e += a.mass * (a.vx * a.vx + a.vy * a.vy + a.vz * a.vz) / 2;
			for (int j = i + 1; j < bodies.length; j++) {
				Body b = bodies[j];
				double dx = a.x - b.x, dy = a.y - b.y, dz = a.z - b.z;
				e -= a.mass * b.mass / Math.sqrt(dx * dx + dy * dy + dz * dz);
			}
		}
		return e;
	}

	public static void main(String[] args) {
		Body[] bodies = place();
		long steps = Long.parseLong(args[0]);
		System.out.println("start");
		System.out.flush();
		for (long i = 0; i < steps; i++)
			step(bodies, 0.001);
		System.out.println("end " + energy(bodies));
		System.out.flush();
	}
}
