// Command nbody is guest/nbody.c in Go.
package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
)

type body struct{ x, y, z, vx, vy, vz, mass float64 }

// place makes a star, and planets on near-circular orbits around it.
func place() []body {
	bodies := make([]body, 5)
	bodies[0].mass = 1
	for k := 1; k < len(bodies); k++ {
		n, side := float64(k), 1.0
		if k >= 3 {
			side = -1
		}
		r := 1.3*n + 0.1*n*n
		v := math.Sqrt(1 / r)
		b := &bodies[k]
		b.mass, b.z = 1e-3/n, 0.02*r
		if k%2 == 1 {
			b.x, b.vy = side*r, side*v
		} else {
			b.y, b.vx = side*r, -side*v
		}
	}
	return bodies
}

func step(bodies []body, dt float64) {
	for i := range bodies {
		a := &bodies[i]
		for j := i + 1; j < len(bodies); j++ {
			b := &bodies[j]
			dx, dy, dz := a.x-b.x, a.y-b.y, a.z-b.z
			square := dx*dx + dy*dy + dz*dz
			pull := dt / (square * math.Sqrt(square))
			a.vx -= dx * b.mass * pull
			a.vy -= dy * b.mass * pull
			a.vz -= dz * b.mass * pull
			b.vx += dx * a.mass * pull
			b.vy += dy * a.mass * pull
			b.vz += dz * a.mass * pull
		}
	}
	for i := range bodies {
		b := &bodies[i]
		b.x += dt * b.vx
		b.y += dt * b.vy
		b.z += dt * b.vz
	}
}

func energy(bodies []body) float64 {
	e := 0.0
	for i, a := range bodies {
		e += a.mass * (a.vx*a.vx + a.vy*a.vy + a.vz*a.vz) / 2
		for _, b := range bodies[i+1:] {
			dx, dy, dz := a.x-b.x, a.y-b.y, a.z-b.z
			e -= a.mass * b.mass / math.Sqrt(dx*dx+dy*dy+dz*dz)
		}
	}
	return e
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: nbody STEPS")
		os.Exit(2)
	}
	steps, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "nbody:", err)
		os.Exit(2)
	}
	bodies := place()
	fmt.Println("start")
	for i := 0; i < steps; i++ { // Go 1.21 compiles it too
		step(bodies, 0.001)
	}
	fmt.Println("end", strconv.FormatFloat(energy(bodies), 'g', 17, 64))
}
