package live

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	cs "junction/coresched"
)

// keeper keeps cores for enclaves alone: below the home there is a cpuset for each
// such enclave's tasks, which the kernel lets overlap with no other, and one for the
// tasks of the home, the rest, which has the cores that are left. Who does so is in
// their names, so that what is found of a dead one can be taken away. Since only
// tasks of the home are moved, that is where all of them belong.
type keeper struct {
	home
	owner string
	// dissolve is the function; a test's takes its time.
	dissolve func(dir, to string) error

	// changing: one at a time keeps cores or gives them up, which may take seconds:
	// tasks may be slow to end. Taken before mu.
	changing sync.Mutex
	// mu is held for single moves, and while the home is swept: who reads the
	// affinity of a thread has it in the home for a moment.
	mu sync.Mutex
	// +checklocks:mu
	kept map[cs.CPU]*kept // by the first core
}

// kept are cores of one enclave.
type kept struct {
	cpus  cs.CPUSet
	loose bool // everybody may use them already
}

const restName = "rest"

func newKeeper(dir string) (*keeper, error) {
	h, err := findHome(dir)
	if err != nil {
		return nil, err
	}
	s, err := readStatAlone(os.Getpid())
	if err != nil {
		return nil, err
	}
	return &keeper{home: h, owner: ownerName(os.Getpid(), s.started), dissolve: dissolve, kept: map[cs.CPU]*kept{}}, nil
}

func (k *keeper) folder(what string) string { return filepath.Join(k.dir, k.owner+"."+what) }

func (k *keeper) setOf(cpus *cs.CPUSet) string {
	return k.folder("core" + strconv.Itoa(int(cpus.Next(0))))
}

// rest returns the home's cores less those that are kept.
// +checklocks:k.mu
func (k *keeper) rest() (cs.CPUSet, error) {
	left, err := cpusOf(k.dir)
	if err != nil {
		return left, err
	}
	for _, x := range k.kept {
		if x.loose {
			continue
		}
		for c := x.cpus.Next(0); c != cs.NoCPU; c = x.cpus.Next(c + 1) {
			if !left.Has(c) {
				return left, fmt.Errorf("%w: %d is none of cpuset %s", ErrExclusive, c, k.path)
			}
			left.Remove(c)
		}
	}
	if left.Empty() {
		return left, fmt.Errorf("%w: none would be left to all the others; leave them one at least", ErrExclusive)
	}
	return left, nil
}

// keep keeps cores, of which none is kept. left is how many tasks could not be moved
// off them.
func (k *keeper) keep(cpus cs.CPUSet) (left int, err error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	if err := k.check(); err != nil {
		return 0, err
	}
	if err := k.finish(&cpus, false); err != nil { // loose ones of before
		return 0, err
	}
	if err := k.overlaps(&cpus, k.owner); err != nil {
		return 0, err
	}
	if left, err = k.begin(cpus); err != nil {
		return 0, errors.Join(err, k.finish(&cpus, false))
	}
	return left, nil
}

// begin moves all tasks of the home off cores. If it fails they are loose.
// +checklocks:k.changing
func (k *keeper) begin(cpus cs.CPUSet) (left int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	x := &kept{cpus: cpus}
	k.kept[cpus.Next(0)] = x
	rest, err := k.rest()
	if err != nil {
		delete(k.kept, cpus.Next(0))
		return 0, err
	}
	err = k.ensureSet(k.folder(restName), rest, false)
	if err == nil {
		err = k.ensureSet(k.setOf(&cpus), cpus, true)
	}
	if err == nil {
		left, err = sweep(k.dir, k.folder(restName))
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("%w: %w", ErrExclusive, err), k.loosen(x))
	}
	return left, nil
}

// loosen lets everybody use cores that were kept. Affinities are then what they
// were; tasks are where they belong after give.
// +checklocks:k.mu
func (k *keeper) loosen(x *kept) error {
	if x.loose {
		return nil
	}
	x.loose = true
	rest, err := k.rest()
	if err != nil {
		return err
	}
	return widen([]string{k.setOf(&x.cpus), k.folder(restName)}, rest)
}

// finish puts tasks where they belong, if their cores are loose, or in any case if
// all. Nobody is moved to such cores any more; to the rest nobody is when these were
// the last.
// +checklocks:k.changing
func (k *keeper) finish(cpus *cs.CPUSet, all bool) error {
	first := cpus.Next(0)
	k.mu.Lock()
	x := k.kept[first]
	if x == nil || !x.loose && !all {
		k.mu.Unlock()
		return nil
	}
	err := k.loosen(x)
	delete(k.kept, first)
	last := len(k.kept) == 0
	k.mu.Unlock()
	to := k.folder(restName)
	if last {
		to = k.dir
	}
	err = errors.Join(err, k.dissolve(k.setOf(&x.cpus), to))
	if last {
		err = errors.Join(err, k.dissolve(k.folder(restName), k.dir))
	}
	return err
}

// open lets everybody use cores, at once. give has to follow.
func (k *keeper) open(cpus *cs.CPUSet) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if x := k.kept[cpus.Next(0)]; x != nil {
		return k.loosen(x)
	}
	return nil
}

// give ends the keeping of cores.
func (k *keeper) give(cpus *cs.CPUSet) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	return k.finish(cpus, true)
}

// giveLoose is give for cores that are loose, unless they are kept again by now.
func (k *keeper) giveLoose(cpus *cs.CPUSet) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	return k.finish(cpus, false)
}

// tidy moves tasks off that have come to the home since.
func (k *keeper) tidy() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.kept) == 0 {
		return nil
	}
	_, err := sweep(k.dir, k.folder(restName))
	return err
}

// put moves a thread to cores that are kept. One that somebody has moved to another
// cpuset stays there: ErrRefused.
func (k *keeper) put(tid int, cpus *cs.CPUSet) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	in, err := cpusetOf(tid)
	if err != nil {
		return nil // it has ended
	}
	if err := k.mine(tid, in); err != nil {
		return err
	}
	return move(tid, k.setOf(cpus))
}

// mine refuses a thread that is no task of the home.
func (k *keeper) mine(tid int, in string) error {
	if in == k.path || k.ours(in) {
		return nil
	}
	return fmt.Errorf("%w: %d is in cpuset %s; exclusive cores are for tasks of %s", ErrRefused, tid, in, k.path)
}

// aside moves a thread from cores that are kept to all the others.
func (k *keeper) aside(tid int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	in, err := cpusetOf(tid)
	if err != nil || !k.ours(in) || len(k.kept) == 0 {
		return nil // it has ended, or is none that we have moved
	}
	return move(tid, k.folder(restName))
}

// ours tells whether a cpuset is one that we have made.
func (k *keeper) ours(in string) bool { return strings.HasPrefix(in, path.Join(k.path, k.owner)+".") }

// unconfined calls f with a thread of the rest where it has all its cores, and
// refuses one of another cpuset if it has to be a task of the home.
func (k *keeper) unconfined(tid int, must bool, f func() error) error {
	in, err := cpusetOf(tid)
	if err != nil {
		return fmt.Errorf("%w: %d", ErrThread, tid)
	}
	if must {
		if err := k.mine(tid, in); err != nil {
			return err
		}
	}
	if !k.ours(in) {
		return f()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := move(tid, k.dir); err != nil {
		return err
	}
	err = f()
	if len(k.kept) > 0 {
		err = errors.Join(err, move(tid, k.folder(restName)))
	}
	return err
}
