package boundary

import (
	"iter"
	"strconv"
	"strings"
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
// which take those below with them. It skips lines that it does not understand.
func kernelMounts(mountinfo, dir string) (points []string) {
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields, fs := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(fs) < 1 || !kernelFilesystems[fs[0]] {
			continue
		}
		if p := unescape(fields[4]); p != dir && below(p, dir) && !belowAny(p, points) {
			points = append(points, p)
		}
	}
	return points
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

// unescape replaces \ooo, as the kernel writes blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
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
