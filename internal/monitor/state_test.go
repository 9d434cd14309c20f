package monitor

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/coresched/live"
)

// TestForeignState: nothing is taken over from a folder that another user could
// have written to, whatever is in it.
func TestForeignState(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"writable by all":       func(dir string) error { return os.Chmod(dir, 0o777) },
		"writable by the group": func(dir string) error { return os.Chmod(dir, 0o770) },
		"another user's":        func(dir string) error { return os.Chown(dir, 12345, 12345) },
		"a symbolic link": func(dir string) error {
			if err := os.Rename(dir, dir+".real"); err != nil {
				return err
			}
			return os.Symlink(dir+".real", dir)
		},
		"no folder": func(dir string) error {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			return os.WriteFile(dir, nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Socket: filepath.Join(t.TempDir(), "socket")}
			_, err := o.loadState()
			require.ErrorIs(t, err, fs.ErrNotExist, "there is none")
			require.NoError(t, o.openState())
			require.NoError(t, o.openState(), "what a monitor has made itself is taken over")
			require.NoError(t, os.WriteFile(filepath.Join(o.stateDir(), "state.json"), []byte(`{"schema":0}`), 0o600))
			require.NoError(t, spoil(o.stateDir()))
			_, err = o.loadState()
			require.ErrorContains(t, err, "others than user")
			require.ErrorContains(t, o.openState(), "others than user")
		})
	}
}

// TestStateOfAnotherBoot: a monitor takes nothing over from one of before the machine
// was started, whoever has the numbers of its processes now, and begins anew.
func TestStateOfAnotherBoot(t *testing.T) {
	other := exec.Command("sleep", "600")
	require.NoError(t, other.Start())
	ended := make(chan struct{})
	go func() { _ = other.Wait(); close(ended) }()
	t.Cleanup(func() { _ = other.Process.Kill(); <-ended })
	p := process{other.Process.Pid, startOf(other.Process.Pid)}
	var o Options
	socket := startWith(t, "well", func(with *Options) {
		o = *with
		require.NoError(t, o.openState())
		b, err := json.Marshal(state{
			Schema: stateSchema, Boot: "00000000-0000-0000-0000-000000000000", Shared: o.Shared, Last: 7, Server: p, Spare: p,
			Instances: []record{{ID: 7, Name: "gone", Shared: true}},
		})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(o.stateDir(), "state.json"), b, 0o600))
		require.NoError(t, os.WriteFile(o.escrowPath(1), nil, 0o600)) // where the first one is to listen
		_, err = o.loadState()
		require.ErrorIs(t, err, errOtherBoot)
	})
	require.EqualValues(t, 1, join(t, socket, "new").Lease().ID)
	s := mustAsk[Status](t, socket, "status")
	require.Len(t, s.Instances, 1)
	require.Equal(t, "new", s.Instances[0].Name)
	require.NotEqual(t, p.PID, s.Server.PID)
	require.NoFileExists(t, o.escrowPath(7))
	select {
	case <-ended:
		require.Fail(t, "a stranger's process was ended")
	default:
	}
	now, err := o.loadState()
	require.NoError(t, err)
	require.Equal(t, live.BootID(), now.Boot)
}
