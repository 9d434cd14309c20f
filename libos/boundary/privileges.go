package boundary

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// DropPrivileges takes all capabilities from all threads: effective, permitted,
// inheritable, ambient and bounding set. Before, a process that may becomes uid
// and gid, the program's, so that the files it makes are theirs. Processes
// started later have no more.
//
// It must run before platforms that keep programs in other processes start
// theirs: a process cannot trace one that has more capabilities.
func DropPrivileges(uid, gid uint32) error {
	if err := dropBounding(); err != nil {
		return fmt.Errorf("boundary: dropping the capability bounding set: %w", err)
	}
	if mayBecome(uid, gid) {
		if err := become(int(uid), int(gid)); err != nil {
			return fmt.Errorf("boundary: becoming user %d, group %d: %w", uid, gid, err)
		}
	}
	if err := dropCapabilities(); err != nil {
		return fmt.Errorf("boundary: dropping capabilities: %w", err)
	}
	// Who changes users is not dumpable, and neither are its copies, which
	// systrap must be able to trace. Install takes it back.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("boundary: making copies of the process traceable: %w", err)
	}
	return nil
}

// mayBecome tells whether the process is to become another user's and can.
func mayBecome(uid, gid uint32) bool {
	other := int(uid) != os.Getuid() || int(gid) != os.Getgid()
	return other && has(unix.CAP_SETUID) && has(unix.CAP_SETGID)
}

// become changes all user and group IDs of all threads.
func become(uid, gid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return err
	}
	return syscall.Setresuid(uid, uid, uid)
}

// dropBounding empties the bounding set, which needs CAP_SETPCAP. Who lacks it
// has no capability that matters, and no_new_privs keeps it from getting any.
func dropBounding() error {
	if !has(unix.CAP_SETPCAP) {
		return nil
	}
	for c := uintptr(0); ; c++ {
		set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			return nil // the first number that is no capability of this kernel
		}
		if set == 0 {
			continue
		}
		if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); errno != 0 {
			return errno
		}
	}
}
