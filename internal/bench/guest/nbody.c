/* nbody STEPS: five bodies under gravity, STEPS time steps. Prints "start",
 * computes, prints "end" and the energy: the same programme in five languages,
 * with no system call between the two lines but what the language's runtime does. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BODIES = 5 };

static struct body {
	double x, y, z, vx, vy, vz, mass;
} bodies[BODIES];

/* A star, and planets on near-circular orbits around it. */
static void place(void)
{
	int k;

	bodies[0].mass = 1;
	for (k = 1; k < BODIES; k++) {
		struct body *b = &bodies[k];
		double r = 1.3 * k + 0.1 * k * k, v = sqrt(1 / r), side = k < 3 ? 1 : -1;

		b->mass = 1e-3 / k;
		b->z = 0.02 * r;
		if (k % 2) {
			b->x = side * r;
			b->vy = side * v;
		} else {
			b->y = side * r;
			b->vx = -side * v;
		}
	}
}

static void step(double dt)
{
	int i, j;

	for (i = 0; i < BODIES; i++) {
		struct body *a = &bodies[i];

		for (j = i + 1; j < BODIES; j++) {
			struct body *b = &bodies[j];
			double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
			double square = dx * dx + dy * dy + dz * dz;
			double pull = dt / (square * sqrt(square));

			a->vx -= dx * b->mass * pull;
			a->vy -= dy * b->mass * pull;
			a->vz -= dz * b->mass * pull;
			b->vx += dx * a->mass * pull;
			b->vy += dy * a->mass * pull;
			b->vz += dz * a->mass * pull;
		}
	}
	for (i = 0; i < BODIES; i++) {
		bodies[i].x += dt * bodies[i].vx;
		bodies[i].y += dt * bodies[i].vy;
		bodies[i].z += dt * bodies[i].vz;
	}
}

static double energy(void)
{
	double e = 0;
	int i, j;

	for (i = 0; i < BODIES; i++) {
		struct body *a = &bodies[i];

		e += a->mass * (a->vx * a->vx + a->vy * a->vy + a->vz * a->vz) / 2;
		for (j = i + 1; j < BODIES; j++) {
			struct body *b = &bodies[j];
			double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;

			e -= a->mass * b->mass / sqrt(dx * dx + dy * dy + dz * dz);
		}
	}
	return e;
}

int main(int argc, char **argv)
{
	long steps = argc > 1 ? atol(argv[1]) : 0;

	place();
	puts("start");
	fflush(stdout);
	while (steps-- > 0)
		step(0.001);
	printf("end %.17g\n", energy());
	return 0;
}
