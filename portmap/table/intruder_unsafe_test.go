package table

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// intruderVariable makes this test binary the process that holds the view.
const intruderVariable = "PORTMAP_INTRUDER"

func TestMain(m *testing.M) {
	if os.Getenv(intruderVariable) != "" {
		intrude()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestAProcessWithAViewCannotWrite: a child that holds the view's descriptor
// and is root tries every way to write. The table stays as it is.
func TestAProcessWithAViewCannotWrite(t *testing.T) {
	w, v := newPair(t, small)
	f, err := w.ViewFile()
	require.NoError(t, err)
	defer f.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), intruderVariable+"=1")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Equal(t, []string{
		"write to the descriptor: EBADF",
		"write to one opened again: EPERM",
		"truncate: EPERM",
		"punch a hole: EPERM",
		"add a seal: EPERM",
		"map it writable: EPERM",
		"make the view's mapping writable: EACCES",
		"write through /proc/self/mem: EIO",
		"store through the view: fault at the word",
		"store to a private copy: ok",
		"the table is as it was",
	}, got)
	require.Zero(t, v.table.slots[intruderWord])
}

// intruderWord is the word of the table, a free one, that the child attacks.
const intruderWord = 7

// intrude runs in the child, whose descriptor 3 is the view's.
func intrude() {
	f := os.NewFile(3, "view")
	v, err := OpenView(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	say := func(what string, err error) {
		var errno unix.Errno
		switch {
		case err == nil:
			fmt.Println(what + ": ok")
		case errors.As(err, &errno):
			fmt.Println(what + ": " + unix.ErrnoName(errno))
		default:
			fmt.Println(what + ": " + err.Error())
		}
	}
	one := []byte{1}
	_, err = unix.Pwrite(3, one, intruderWord*8)
	say("write to the descriptor", err)
	again, err := os.OpenFile("/proc/self/fd/3", os.O_RDWR, 0)
	if err != nil {
		say("open it again", err)
		return
	}
	fd := int(again.Fd())
	_, err = unix.Pwrite(fd, one, intruderWord*8)
	say("write to one opened again", err)
	say("truncate", unix.Ftruncate(fd, 0))
	say("punch a hole", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(pageSize)))
	_, err = unix.FcntlInt(again.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	say("add a seal", err)
	_, err = mapWords(fd, 512, unix.PROT_READ|unix.PROT_WRITE)
	say("map it writable", err)
	say("make the view's mapping writable", unix.Mprotect(v.mem.bytes, unix.PROT_READ|unix.PROT_WRITE))
	say("write through /proc/self/mem", writeProcMem(&v.mem.words[intruderWord]))
	say("store through the view", store(&v.mem.words[intruderWord]))
	private, err := unix.Mmap(fd, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err == nil {
		private[intruderWord*8] = 1
	}
	say("store to a private copy", err)
	if v.mem.words[intruderWord] == 0 {
		fmt.Println("the table is as it was")
	}
}

func writeProcMem(word *uint64) error {
	f, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte{1}, int64(uintptr(unsafe.Pointer(word))))
	return err
}

// store writes a word, and returns the fault that this raises.
func store(word *uint64) (err error) {
	debug.SetPanicOnFault(true)
	defer func() {
		var fault interface{ Addr() uintptr }
		if e, ok := recover().(error); ok && errors.As(e, &fault) && fault.Addr() == uintptr(unsafe.Pointer(word)) {
			err = errors.New("fault at the word")
		}
	}()
	*word = 1
	return nil
}
