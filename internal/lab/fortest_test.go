package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"
)

// fakeTB notes what ForTest reports.
type fakeTB struct {
	cleanups []func()
	errors   []string
}

func (f *fakeTB) Helper()          {}
func (f *fakeTB) Cleanup(c func()) { f.cleanups = append(f.cleanups, c) }
func (f *fakeTB) Errorf(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}
func (f *fakeTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (f *fakeTB) end() string {
	for _, c := range f.cleanups {
		c()
	}
	return strings.Join(f.errors, "\n")
}

func TestForTestIsContentWithACleanEnd(t *testing.T) {
	var tb fakeTB
	l := ForTest(&tb, Options{})
	require.DirExists(t, netnsDir)
	require.Len(t, traces(t, l.Name()), 3)
	require.Empty(t, tb.end())
	require.Empty(t, traces(t, l.Name()))
}

func TestForTestReportsWhatIsLeft(t *testing.T) {
	var tb fakeTB
	l := ForTest(&tb, Options{})
	require.NoError(t, l.Close())
	files := []string{leasePath(l.Name()), l.Client.Path()}
	for _, f := range files {
		require.NoError(t, os.WriteFile(f, nil, 0o600))
		defer os.Remove(f)
	}
	said := tb.end()
	for _, f := range files {
		require.Contains(t, said, f)
	}
}

func TestForTestRefusesBadOptions(t *testing.T) {
	require.PanicsWithValue(t, "lab: MTU 1: want 68 to 65535", func() { ForTest(&fakeTB{}, Options{MTU: 1}) })
}

func FuzzMountsBelow(f *testing.F) {
	mine, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(f, err)
	f.Add(string(mine))
	f.Add("1 2 0:1 / /sys/x rw - a a rw\n1 2 0:1 / /sys/x/y rw - a a rw\n1 2 0:1 / /sysx rw - a a rw\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := mountinfo.GetMountsFromReader(strings.NewReader(text), nil)
		if err != nil {
			return
		}
		found := topmostBelow(list, "/sys")
		for i, p := range found {
			require.True(t, strings.HasPrefix(p, "/sys/"))
			require.False(t, coveredBy(found[:i], p))
		}
	})
}
