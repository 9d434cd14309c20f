package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// finish waits for the end of an instance that was started with --stats=json,
// which must be 0, and returns its statistics.
func finish(t *testing.T, i *instance) report {
	t.Helper()
	require.Zero(t, i.exit())
	r := i.report()
	if r.AddressSpaces != nil {
		t.Logf("%+v %+v", *r.AddressSpaces, r.Kthreads)
	}
	return r
}

// TestMoves runs programs that compare their registers and memory while their
// address spaces are exchanged as often as possible: without a second platform,
// and with it.
func TestMoves(t *testing.T) {
	program := compile(t, "stress")
	for moves, argv := range map[string]string{
		"always": program + " 3 gs place middle",
		"soon":   program + " 3",
	} {
		t.Run(moves, func(t *testing.T) {
			c := command(isolated("inproc", "--stats=json", "--moves", moves), "sh", "-c", argv+" & "+argv+" & wait")
			c.Env = append(c.Environ(), "GOGC=5")
			i := launch(t, c, c)
			spaces := finish(t, i).AddressSpaces
			require.Equal(t, 2, strings.Count(i.stdout.String(), "\nok "), i.stdout.String())
			require.Greater(t, spaces.Moves, uint64(20))
			require.NotZero(t, spaces.SwitchesInside)
			require.Equal(t, moves == "soon", spaces.SwitchesElsewhere > 0)
		})
	}
}

// TestBusyWorkersRunInProcess: nginx's workers, which fork from a master that
// sleeps, end up in the libOS's address space.
func TestBusyWorkersRunInProcess(t *testing.T) {
	r := newRig(t, variant{engine: "inproc", driver: drivers[0]}, lab.Options{})
	i, addr := r.startServer(t, "nginx-workers")
	checkNginxWorkers(t, r, addr)
	i.terminate(0)
	spaces := i.checkStats().AddressSpaces
	t.Logf("%+v", *spaces)
	require.EqualValues(t, 3, spaces.Total, "a master and two workers")
	require.GreaterOrEqual(t, spaces.Inside, uint64(2))
	// Of two workers that are equally busy one is always outside. The master
	// makes a few hundred Switches.
	require.Greater(t, spaces.SwitchesInside, uint64(3_000))
}

// TestBgsaveLeavesTheServerInProcess: redis writes its snapshot in a fork while
// it serves; the server stays where it is.
func TestBgsaveLeavesTheServerInProcess(t *testing.T) {
	r := newRig(t, variant{engine: "inproc", driver: drivers[0]}, lab.Options{})
	i, addr := r.startServer(t, "redis")
	cli := func(args ...string) string {
		return strings.TrimSpace(r.client("redis-cli", append(hostPort(addr), args...)...))
	}
	const fill = `for i = 1, 20000 do redis.call('set', 'key' .. i, string.rep('x', 1000)) end return 'filled'`
	require.Equal(t, "filled", cli("eval", fill, "0"))
	require.Contains(t, cli("bgsave"), "started")
	r.client("redis-benchmark", append(hostPort(addr), "-n", "30000", "-c", "20", "-t", "set", "--csv")...)
	require.Eventually(t, func() bool { return strings.Contains(cli("info", "persistence"), "rdb_bgsave_in_progress:0") }, readyTimeout, 50*time.Millisecond)
	require.Contains(t, cli("info", "persistence"), "rdb_last_bgsave_status:ok")
	i.terminate(0)
	spaces := i.checkStats().AddressSpaces
	t.Logf("%+v", *spaces)
	require.EqualValues(t, 2, spaces.Total, "a server and its fork")
	require.Greater(t, spaces.SwitchesInside, 5*spaces.SwitchesElsewhere)
}

// TestPipelines: the shell's short commands run in the libOS's address space
// although the shell lives.
func TestPipelines(t *testing.T) {
	const script = `i=0; while [ $i -lt 30 ]; do seq 1000 | sort -rn | head -1; i=$((i+1)); done`
	i := start(t, isolated("inproc", "--stats=json"), "sh", "-c", script)
	spaces := finish(t, i).AddressSpaces
	require.Equal(t, strings.Repeat("1000\n", 30), i.stdout.String())
	require.Greater(t, spaces.Inside, spaces.Total/4)
	require.Greater(t, spaces.SwitchesInside, spaces.SwitchesElsewhere)
}

// TestManyForks: a tree of processes that all live at once.
func TestManyForks(t *testing.T) {
	const depth = 5
	script := fmt.Sprintf(`f() { if [ $1 -gt 0 ]; then f $(($1-1)) & f $(($1-1)) & wait; fi; echo $1; }; f %d`, depth)
	eachEngine(t, func(t *testing.T, engine string) {
		all := [][]string{{"--stats=json"}}
		if engine == "inproc" {
			all = append(all, []string{"--stats=json", "--moves=always"}, []string{"--stats=json", "--moves=soon"}, []string{"--stats=json", "--moves=never"})
		}
		for _, flags := range all {
			i := start(t, isolated(engine, flags...), "sh", "-c", script)
			finish(t, i)
			for level := range depth + 1 {
				require.Equal(t, 1<<(depth-level), strings.Count(i.stdout.String(), fmt.Sprintln(level)), "processes at level %d", level)
			}
		}
	})
}

// TestVforkStays: a child in its parent's memory needs no move, and no stub.
func TestVforkStays(t *testing.T) {
	program := compile(t, "vfork")
	i := start(t, isolated("inproc", "--stats=json", "--moves", "never"), program, "100")
	spaces := finish(t, i).AddressSpaces
	require.Equal(t, "100\nspawned\n", i.stdout.String())
	require.EqualValues(t, 2, spaces.Total, "the program and the one that was spawned")
	require.EqualValues(t, 1, spaces.Elsewhere)
}
