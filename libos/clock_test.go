package libos

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// askEnv makes this test binary, inside an instance, ask for the time at once
// and as often as it says.
const askEnv = "JUNCTION_LIBOS_TEST_ASK"

func askTime(times string) int {
	n, err := strconv.Atoi(times)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for last := time.Now(); n > 0; n-- {
		now := time.Now()
		if now.Before(last) || now.UnixNano() < last.UnixNano() {
			fmt.Fprintf(os.Stderr, "%v came after %v\n", now, last)
			return 1
		}
		last = now
	}
	return 0
}

// A program asks for the time without system calls, from its start.
func TestClockNeedsNoSystemCall(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	const asks = 100000
	cmd := child(t, Options{Argv: []string{self}, Env: []string{fmt.Sprintf("%s=%d", askEnv, asks)}})
	cmd.Env = append(cmd.Env, countEnv)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	found := regexp.MustCompile(`system calls: (\d+)\n`).FindSubmatch(out)
	require.NotNil(t, found, "%s", out)
	calls, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	require.Less(t, calls, asks/10)
}

// The time inside is the host's, also before the clocks have been calibrated for long.
func TestClockIsTheHosts(t *testing.T) {
	const tolerance = 200 * time.Microsecond
	cmd := child(t, Options{Argv: []string{"sh", "-c", "while read line; do date +%s%N; done"}})
	cmd.Stderr = os.Stderr
	ask, err := cmd.StdinPipe()
	require.NoError(t, err)
	answers, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(answers)
	began := time.Now()
	for time.Since(began) < 1500*time.Millisecond { // over the second calibration
		before := time.Now()
		fmt.Fprintln(ask)
		line, err := lines.ReadString('\n')
		after := time.Now()
		require.NoError(t, err)
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		require.NoError(t, err)
		inside := time.Unix(0, ns)
		require.False(t, inside.Before(before.Add(-tolerance)), "%v is before %v", inside, before)
		require.False(t, inside.After(after.Add(tolerance)), "%v is after %v", inside, after)
	}
	require.NoError(t, ask.Close())
	require.NoError(t, cmd.Wait())
}

// Two looks that are close together say nothing about the rate.
func TestClockRefusesShortCalibration(t *testing.T) {
	c := newClocks()
	ready := func() []bool {
		_, monotonic, _, realtime := c.Update()
		return []bool{monotonic, realtime}
	}
	c.began = time.Now().Add(time.Hour)
	require.Equal(t, []bool{false, false}, ready())
	c.began = time.Now().Add(-calibrationTime)
	require.Equal(t, []bool{true, true}, ready())
}
