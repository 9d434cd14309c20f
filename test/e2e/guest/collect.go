package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// collect keeps the garbage collector at work beside 10,000 goroutines and
// children, and writes what must come out of it.
func collect([]string) error {
	debug.SetGCPercent(5)
	fmt.Println("goroutines", goroutines(10_000))
	once := churn()
	for m := new(runtime.MemStats); m.NumGC < 50; runtime.ReadMemStats(m) {
		if again := churn(); again != once {
			return fmt.Errorf("map %s, then %s", once, again)
		}
	}
	fmt.Println("map", once)
	answers, err := children(20)
	fmt.Println("children", answers)
	return err
}

type tree struct {
	left, right *tree
	payload     []byte
}

func grow(depth int) *tree {
	if depth == 0 {
		return &tree{payload: []byte{1}}
	}
	return &tree{left: grow(depth - 1), right: grow(depth - 1), payload: make([]byte, 8*depth)}
}

func (t *tree) leaves() int {
	if t.left == nil {
		return int(t.payload[0])
	}
	return t.left.leaves() + t.right.leaves()
}

// goroutines sums the leaves of a tree of each of n goroutines that all live at once.
func goroutines(n int) (sum int) {
	var begun, wg sync.WaitGroup
	begun.Add(n)
	leaves := make(chan int)
	for i := range n {
		wg.Go(func() {
			begun.Done()
			begun.Wait()
			t := grow(i % 7)
			time.Sleep(time.Duration(i%5) * time.Millisecond)
			leaves <- t.leaves()
		})
	}
	go func() { wg.Wait(); close(leaves) }()
	for l := range leaves {
		sum += l
	}
	return sum
}

// churn replaces the values of a map many times over.
func churn() string {
	const keys, rounds = 5000, 300_000
	m := make(map[int]string)
	for i := range rounds {
		m[i%keys] = fmt.Sprint(i)
	}
	h := sha256.New()
	for k := range keys {
		h.Write([]byte(m[k]))
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// children runs n shells at once.
func children(n int) (string, error) {
	answers, errs := make([]string, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			out, err := exec.Command("sh", "-c", fmt.Sprintf("echo $((%d * %d))", i, i)).Output()
			answers[i], errs[i] = strings.TrimSpace(string(out)), err
		})
	}
	wg.Wait()
	return strings.Join(answers, " "), errors.Join(errs...)
}
