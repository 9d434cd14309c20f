package libos

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"path"
	"runtime"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"
)

// finder looks programs up in an instance's file tree, as execvp(3) would,
// and says what is wrong with one before the kernel would only say ENOEXEC.
type finder struct {
	ctx   context.Context
	vfs   *vfs.VirtualFilesystem
	creds *auth.Credentials
	root  vfs.VirtualDentry
	cwd   string
}

// defaultPath is searched when the environment has no PATH, as execvp(3) does.
const defaultPath = "/bin:/usr/bin"

// find returns the path of program name. Errors wrap ErrNotFound or ErrNotExecutable.
func (f *finder) find(name string, env []string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("program name is empty: %w", ErrNotFound)
	}
	if strings.Contains(name, "/") {
		p := f.abs(name)
		return p, f.check(p)
	}
	var firstErr error
	for _, dir := range strings.Split(lookupEnv(env, "PATH", defaultPath), ":") {
		p := f.abs(path.Join(dir, name))
		err := f.check(p)
		if err == nil {
			return p, nil
		}
		// As shells do: a file that is there but cannot be run beats none at all.
		if firstErr == nil && !isNotFound(err) {
			firstErr = err
		}
	}
	if firstErr != nil {
		return "", firstErr
	}
	return "", fmt.Errorf("%s: %w in PATH of the instance (give its path, or another PATH with --env)", name, ErrNotFound)
}

func (f *finder) abs(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(f.cwd, p)
}

// maxInterpreters is how many scripts may interpret each other, as in Linux.
const maxInterpreters = 4

// check tells why the file at p cannot be executed, or nil.
func (f *finder) check(p string) error {
	return f.checkDepth(p, maxInterpreters)
}

func (f *finder) checkDepth(p string, depth int) error {
	head, err := f.readHead(p)
	if err != nil {
		return err
	}
	if interp, ok := interpreter(head); ok {
		if depth == 0 {
			return fmt.Errorf("%s: too many interpreters in a row: %w", p, ErrNotExecutable)
		}
		if err := f.checkDepth(f.abs(interp), depth-1); err != nil {
			return fmt.Errorf("%s: interpreter: %w", p, err)
		}
		return nil
	}
	if why := checkELF(head); why != "" {
		return fmt.Errorf("%s: %s: %w", p, why, ErrNotExecutable)
	}
	return nil
}

// readHead opens the file at p as for execution and reads its first bytes.
func (f *finder) readHead(p string) ([]byte, error) {
	op := &vfs.PathOperation{Root: f.root, Start: f.root, Path: fspath.Parse(p), FollowFinalSymlink: true}
	fd, err := f.vfs.OpenAt(f.ctx, f.creds, op, &vfs.OpenOptions{Flags: linux.O_RDONLY, FileExec: true})
	if err != nil {
		return nil, f.openError(p, op, err)
	}
	defer fd.DecRef(f.ctx)
	head := make([]byte, 256) // BINPRM_BUF_SIZE, what Linux looks at
	n, err := fd.PRead(f.ctx, usermem.BytesIOSequence(head), 0, vfs.ReadOptions{})
	if n == 0 && err != nil {
		return nil, fmt.Errorf("%s: empty or unreadable: %w", p, ErrNotExecutable)
	}
	return head[:n], nil
}

func (f *finder) openError(p string, op *vfs.PathOperation, err error) error {
	switch {
	case linuxerr.Equals(linuxerr.ENOENT, err), linuxerr.Equals(linuxerr.ENOTDIR, err):
		return fmt.Errorf("%s: %w", p, ErrNotFound)
	case linuxerr.Equals(linuxerr.EACCES, err):
		st, serr := f.vfs.StatAt(f.ctx, f.creds, op, &vfs.StatOptions{Mask: linux.STATX_TYPE | linux.STATX_MODE})
		if serr == nil && st.Mode&linux.S_IFMT == linux.S_IFDIR {
			return fmt.Errorf("%s: is a directory: %w", p, ErrNotExecutable)
		}
		return fmt.Errorf("%s: permission denied (chmod +x it, or choose another --uid): %w", p, ErrNotExecutable)
	default:
		return fmt.Errorf("%s: %v: %w", p, err, ErrNotExecutable)
	}
}

// interpreter returns the interpreter that a script's first line names.
func interpreter(head []byte) (string, bool) {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return "", false
	}
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	fields := bytes.Fields(line)
	if len(fields) == 0 {
		return "", false
	}
	return string(fields[0]), true
}

// machines are the ELF machine types by Go's name of the architecture.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkELF says why the file that begins with head cannot run here, or "".
func checkELF(head []byte) string {
	if !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return "neither an ELF program nor a script that starts with #!"
	}
	if len(head) < 64 {
		return "truncated ELF header"
	}
	if elf.Class(head[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(head[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return fmt.Sprintf("a program for another architecture (not 64-bit little-endian), this machine is %s", runtime.GOARCH)
	}
	if m := elf.Machine(binary.LittleEndian.Uint16(head[18:])); m != machines[runtime.GOARCH] {
		return fmt.Sprintf("a program for another architecture (%s), this machine is %s", m, runtime.GOARCH)
	}
	switch t := elf.Type(binary.LittleEndian.Uint16(head[16:])); t {
	case elf.ET_EXEC, elf.ET_DYN:
		return ""
	default:
		return fmt.Sprintf("an ELF file but not a program (%s)", t)
	}
}

// lookupEnv returns the value of key in env, or def.
func lookupEnv(env []string, key, def string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return def
}
