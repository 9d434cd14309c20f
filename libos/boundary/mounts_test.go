package boundary

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

const someMounts = `22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
23 28 0:21 / /proc rw - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:6 / /sys/kernel/debug rw - debugfs debugfs rw
31 28 0:5 / /dev rw - devtmpfs udev rw
32 31 0:27 / /dev/shm rw - tmpfs tmpfs rw
33 28 0:28 / /mnt/a\040b/proc rw - proc proc rw
34 28 0:29 / /home rw - ext4 /dev/vdb rw
35 28 0:21 / /proc rw - proc proc rw
36 28 0:30 / /srv/root/proc rw unbindable - proc proc rw
`

func TestKernelMounts(t *testing.T) {
	for dir, want := range map[string][]string{
		"/":         {"/sys", "/proc", "/dev", "/mnt/a b/proc", "/proc", "/srv/root/proc"},
		"/srv/root": {"/srv/root/proc"},
		"/srv/roo":  nil,
		"/proc":     nil, // who asks for it gets it
		"/mnt/a b":  {"/mnt/a b/proc"},
	} {
		points, err := kernelMounts(strings.NewReader(someMounts), dir)
		require.NoError(t, err)
		require.Equal(t, want, points, dir)
	}
}

// What cannot be read may be a mount of the kernel's: nothing starts then.
func TestMountsThatCannotBeRead(t *testing.T) {
	broken := iotest.ErrReader(errors.New("broken"))
	for name, list := range map[string]io.Reader{
		"no mount":       strings.NewReader(someMounts + "no mount\n"),
		"half a line":    strings.NewReader(someMounts + "37 28 0:31"),
		"no separator":   strings.NewReader(someMounts + "37 28 0:21 / /a rw shared:1 proc proc rw x\n"),
		"a bad escape":   strings.NewReader(someMounts + `37 28 0:21 / /a\13 rw - proc proc rw`),
		"too long":       strings.NewReader(someMounts + "37 28 0:21 / /" + strings.Repeat("a", 1<<20) + " rw - proc proc rw"),
		"a broken file":  broken,
		"broken midways": io.MultiReader(strings.NewReader(someMounts), broken),
	} {
		points, err := kernelMounts(list, "/")
		require.Error(t, err, name)
		require.Empty(t, points, name)
	}
}

func FuzzKernelMounts(f *testing.F) {
	f.Add(someMounts, "/")
	f.Add(`1 1 0:1 / /a\13 rw - proc proc rw`, "/a")
	f.Fuzz(func(t *testing.T, info, dir string) {
		points, err := kernelMounts(strings.NewReader(info), dir)
		if err != nil && points != nil {
			t.Fatal("an error, and mounts")
		}
		if len(points) > strings.Count(info, "\n")+1 {
			t.Fatal("more mounts than lines")
		}
		for _, p := range points {
			if !below(p, dir) || p == dir || belowAny(p, points) && !slices.Contains(points, p) {
				t.Fatalf("%q is not below %q", p, dir)
			}
		}
	})
}

func TestParents(t *testing.T) {
	require.Equal(t, []string{"rw", "rw/10"}, slices.Collect(parents("rw/10")))
	require.Equal(t, []string{"root"}, slices.Collect(parents("root")))
}
