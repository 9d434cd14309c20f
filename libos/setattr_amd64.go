package libos

import "golang.org/x/sys/unix"

func init() {
	attributeCalls[unix.SYS_CHOWN] = attributeCall{fd: none, path: 0, owner: 1, mode: none, flags: none}
	attributeCalls[unix.SYS_LCHOWN] = attributeCall{fd: none, path: 0, owner: 1, mode: none, flags: none, nofollow: true}
	attributeCalls[unix.SYS_CHMOD] = attributeCall{fd: none, path: 0, owner: none, mode: 1, flags: none}
}
