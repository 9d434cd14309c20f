package monitor

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
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
