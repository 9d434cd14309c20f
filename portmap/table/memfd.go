package table

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var pageSize = os.Getpagesize()

// seals are those of a table's memfd: of one size for ever, and written
// through no mapping or system call but the mapping made before.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SEAL

// ErrNotSealed is returned, wrapped, for a file that lacks the table's seals.
var ErrNotSealed = errors.New("not sealed as the portmap's table is")

// slotWordCount is how many words slots and header take in a memfd, filled up
// to a page.
func (g Geometry) slotWordCount() int {
	perPage := pageSize / 8
	return (int(g.Slots+1)*slotWords + perPage - 1) / perPage * perPage
}

// wordCount is how many words a memfd holds.
func (g Geometry) wordCount() int { return g.slotWordCount() + int(g.Ports()) }

// over lays a table over the words of a memfd.
func (g Geometry) over(mem []uint64) *words {
	return &words{g, mem[:(g.Slots+1)*slotWords], mem[g.slotWordCount():]}
}

// newMemfd makes a sealed memfd and the only writable mapping of it there will be.
func newMemfd(g Geometry) (_ *os.File, _ mapping, err error) {
	fd, err := unix.MemfdCreate("junction_portmap", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, mapping{}, fmt.Errorf("create the portmap's memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "portmap")
	var m mapping
	defer func() {
		if err != nil {
			err = fmt.Errorf("set up the portmap's memfd: %w", errors.Join(err, m.unmap(), f.Close()))
		}
	}()
	if err = f.Truncate(int64(g.wordCount()) * 8); err != nil {
		return nil, mapping{}, err
	}
	if m, err = mapWords(fd, g.wordCount(), unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, mapping{}, err
	}
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, mapping{}, err
	}
	return f, m, nil
}

// checkSealed tells whether a file's content can be relied upon to stay there
// and to be the writer's alone.
func checkSealed(fd int) error {
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("%w: it has no seals: %w", ErrNotSealed, err)
	}
	if missing := seals &^ got; missing != 0 {
		return fmt.Errorf("%w: seals %#x are missing", ErrNotSealed, missing)
	}
	return nil
}
