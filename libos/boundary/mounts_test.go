package boundary

import (
	"slices"
	"strings"
	"testing"

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
no mount
37 28 0:31
`

func TestKernelMounts(t *testing.T) {
	for dir, want := range map[string][]string{
		"/":         {"/sys", "/proc", "/dev", "/mnt/a b/proc", "/proc", "/srv/root/proc"},
		"/srv/root": {"/srv/root/proc"},
		"/srv/roo":  nil,
		"/proc":     nil, // who asks for it gets it
		"/mnt/a b":  {"/mnt/a b/proc"},
	} {
		require.Equal(t, want, kernelMounts(someMounts, dir), dir)
	}
}

func FuzzKernelMounts(f *testing.F) {
	f.Add(someMounts, "/")
	f.Add(`1 1 0:1 / /a\13 rw - proc`, "/a")
	f.Fuzz(func(t *testing.T, info, dir string) {
		points := kernelMounts(info, dir)
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
