"""nbody.c in Python."""
import sys
from math import sqrt


class Body:
    __slots__ = ("x", "y", "z", "vx", "vy", "vz", "mass")

    def __init__(self):
        self.x = self.y = self.z = self.vx = self.vy = self.vz = 0.0
        self.mass = 1.0


def place():
    bodies = [Body() for _ in range(5)]
    for k in range(1, 5):
        b = bodies[k]
        r = 1.3 * k + 0.1 * k * k
        v = sqrt(1 / r)
        side = 1 if k < 3 else -1
        b.mass = 1e-3 / k
        b.z = 0.02 * r
        if k % 2:
            b.x, b.vy = side * r, side * v
        else:
            b.y, b.vx = side * r, -side * v
    return bodies


def advance(bodies, pairs, steps, dt):
    for _ in range(steps):
        for a, b in pairs:
            dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
            square = dx * dx + dy * dy + dz * dz
            pull = dt / (square * sqrt(square))
            a.vx -= dx * b.mass * pull
            a.vy -= dy * b.mass * pull
            a.vz -= dz * b.mass * pull
            b.vx += dx * a.mass * pull
            b.vy += dy * a.mass * pull
            b.vz += dz * a.mass * pull
        for b in bodies:
            b.x += dt * b.vx
            b.y += dt * b.vy
            b.z += dt * b.vz


def energy(bodies):
    e = 0.0
    for i, a in enumerate(bodies):
        e += a.mass * (a.vx * a.vx + a.vy * a.vy + a.vz * a.vz) / 2
        for b in bodies[i + 1:]:
            dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
            e -= a.mass * b.mass / sqrt(dx * dx + dy * dy + dz * dz)
    return e


def main():
    bodies = place()
    pairs = [(a, b) for i, a in enumerate(bodies) for b in bodies[i + 1:]]
    print("start", flush=True)
    advance(bodies, pairs, int(sys.argv[1]), 0.001)
    print("end", repr(energy(bodies)))


main()
