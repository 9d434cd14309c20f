package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// stresses are the programs that are hard on an engine, and the share of
// JUNCTION_STRESS that each gets.
var stresses = []struct {
	name, engine string
	share        float64
	args         []string
}{
	// A GS base of its own, new code where other code was, jumps to the middle of a
	// site, and reading it are more than systrap can do: see deviations.
	{"c", "inproc", 0.5, unlessNoKeys("children", "gs", "place", "middle", "read")},
	{"c", "systrap", 0.1, []string{"children"}},
	{"calls", "inproc", 0.05, unlessNoKeys("calls", "place", "middle", "read")},
	{"calls", "systrap", 0.05, []string{"calls"}},
	{"go", "inproc", 0.2, nil},
	{"go", "systrap", 0.1, nil},
}

// unlessNoKeys leaves out the last argument on a machine without protection keys.
func unlessNoKeys(args ...string) []string {
	if hasKeys() {
		return args
	}
	return args[:len(args)-1]
}

// TestStress runs testdata/stress, and the guest's stress program in Go, while
// the libOS's own garbage collector is hard at work and signals come from
// outside at random moments. The programs check themselves: registers, memory,
// the number and order of signals. JUNCTION_STRESS is how long that takes
// altogether; 40 seconds by default.
func TestStress(t *testing.T) {
	total := 40 * time.Second
	if s := os.Getenv("JUNCTION_STRESS"); s != "" {
		var err error
		total, err = time.ParseDuration(s)
		require.NoError(t, err, "JUNCTION_STRESS")
	}
	program := compile(t, "stress")
	for _, s := range stresses {
		t.Run(s.name+"/"+s.engine, func(t *testing.T) {
			seconds := strconv.Itoa(max(1, int(total.Seconds()*s.share)))
			command := append([]string{program, seconds}, s.args...)
			if s.name == "go" {
				command = []string{guest, "stress", seconds}
			}
			stress(t, total, s.engine, command)
		})
	}
}

// stress runs a program that says "ready", answers each SIGTERM with a line
// "term N", says "stopping" after its time, and ends with "ok" and counts when
// its standard input does.
func stress(t *testing.T, limit time.Duration, engine string, program []string) {
	c := command(isolated(engine, "--stats=json"), program...)
	c.Env = append(os.Environ(), "GOGC=5")
	stdin, err := c.StdinPipe()
	require.NoError(t, err)
	i := launch(t, c, c)
	defer abort(i)
	i.await("ready\n")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	terms := disturb(i, rand.New(rand.NewPCG(seed, 0)))
	require.NoError(t, stdin.Close())
	select {
	case <-i.ended:
	case <-time.After(limit + exitTimeout):
		t.Fatalf("the program does not end, after %d SIGTERM", terms)
	}
	require.Zero(t, i.code)
	require.Regexp(t, `\nok( \w+=\d+)+\n$`, i.stdout.String())
	require.Contains(t, i.stdout.String(), fmt.Sprintf(" terms=%d", terms), "SIGTERMs lost")
	_, counts, _ := strings.Cut(i.stdout.String(), "\nok ")
	t.Log(counts, regexp.MustCompile(`"address_spaces":{[^}]*}`).FindString(i.stderr.String()))
}

// abort ends an instance that still runs, with a trace of its goroutines that
// says where it hangs.
func abort(i *instance) {
	if !i.running() {
		return
	}
	_ = i.cmd.Process.Signal(unix.SIGABRT)
	select {
	case <-i.ended:
	case <-time.After(5 * time.Second):
	}
}

// disturb sends signals to the instance's process until the program's time is
// over, and returns the number of SIGTERMs. Those are for the program, which answers; a
// second one is sent after the answer to the first, as they do not queue. The
// others mean something in the process itself, and nothing to the program.
func disturb(i *instance, r *rand.Rand) (terms int) {
	noise := []syscall.Signal{unix.SIGURG, unix.SIGCHLD}
	for i.running() && !strings.Contains(i.stdout.String(), "stopping\n") {
		for range r.IntN(20) {
			_ = i.cmd.Process.Signal(noise[r.IntN(len(noise))]) // it may have ended
			time.Sleep(time.Duration(r.IntN(5000)) * time.Microsecond)
		}
		i.signal(unix.SIGTERM)
		terms++
		i.awaitCond(i.stdout, contains(fmt.Sprintf("term %d\n", terms)), fmt.Sprintf("the answer to SIGTERM %d", terms))
	}
	return terms
}
