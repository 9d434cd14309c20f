package boundary

import (
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// kernelFilesystems are those that show the kernel, its objects and devices
// instead of files (/proc/filesystems, "nodev", without those in memory, of
// networks and of users).
var kernelFilesystems = map[string]bool{
	"proc": true, "sysfs": true, "devtmpfs": true, "devpts": true, "cgroup": true, "cgroup2": true, "cpuset": true,
	"debugfs": true, "tracefs": true, "securityfs": true, "selinuxfs": true, "smackfs": true, "apparmorfs": true,
	"bpf": true, "nsfs": true, "configfs": true, "pstore": true, "efivarfs": true, "fusectl": true, "mqueue": true,
	"binfmt_misc": true, "resctrl": true, "rpc_pipefs": true, "nfsd": true, "functionfs": true, "gadgetfs": true,
	"pipefs": true, "sockfs": true, "bdev": true, "xenfs": true, "binder": true, "secretmem": true, "guest_memfd": true,
}

// kernelMounts returns the mount points below dir of the kernel's file
// systems, from a process's mountinfo (proc_pid_mountinfo(5)): the upper ones,
// which take those below with them. A line that cannot be read is an error, for
// it may be of such a mount.
func kernelMounts(list io.Reader, dir string) (points []string, err error) {
	_, err = mountinfo.GetMountsFromReader(list, func(m *mountinfo.Info) (skip, stop bool) {
		if p := m.Mountpoint; kernelFilesystems[m.FSType] && p != dir && below(p, dir) && !belowAny(p, points) {
			points = append(points, p)
		}
		return true, false
	})
	if err != nil {
		return nil, fmt.Errorf("listing mounts: %w", err)
	}
	return points, nil
}

// below tells whether path is dir or in it. Both are absolute and clean.
func below(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

// belowAny tells whether path is in one of dirs. The same path again is not:
// something may be mounted twice there.
func belowAny(path string, dirs []string) bool {
	for _, d := range dirs {
		if path != d && below(path, d) {
			return true
		}
	}
	return false
}

// parents yields the directories of a relative path, from the first to itself.
func parents(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i < len(path); i++ {
			if path[i] == '/' && !yield(path[:i]) {
				return
			}
		}
		yield(path)
	}
}
