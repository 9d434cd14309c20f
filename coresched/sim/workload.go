package sim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	cs "junction/coresched"
)

// Workloads by name: what the requests of a run are.
var services = map[string]Service{
	// 10 µs each.
	"fixed": Fixed(10 * time.Microsecond),
	// 10 µs in the mean.
	"exp": Exp(10 * time.Microsecond),
	// The RocksDB mix of Shinjuku's and ghOSt's papers: 99.5 % of 10 µs, 0.5 % of 5 ms.
	"rocksdb": Mix{Short: 10 * time.Microsecond, Long: 5 * time.Millisecond, Share: 0.005},
	// Half of 1 µs, half of 100 µs.
	"bimodal": Mix{Short: time.Microsecond, Long: 100 * time.Microsecond, Share: 0.5},
}

// Workloads returns the names of those that are no file, sorted.
func Workloads() []string { return slices.Sorted(maps.Keys(services)) }

// Errors that callers tell apart with errors.Is.
var (
	// ErrWorkload: no such workload, and no file of this name.
	ErrWorkload = errors.New("no such workload")
	// ErrFile: a file that does not list requests.
	ErrFile = errors.New("not a list of requests")
)

// minLoad keeps a run within the 292 years that a Time has.
const minLoad = 1e-6

// Workload returns the instances of a workload, named or in a file, that load
// that many cores. Its requests are dealt out to n instances evenly, at random
// moments; those of a file come when it says, stretched to the load, or as
// recorded if load is 0. offered is the load that they are.
func Workload(name string, load float64, cores, n, kthreads int) (all []Instance, offered float64, err error) {
	if math.IsNaN(load) || load < 0 || load > 10 || load != 0 && load < minLoad {
		return nil, 0, fmt.Errorf("%w: a load of %v; take one from %v to 1", ErrConfig, load, minLoad)
	}
	if s, ok := services[name]; ok {
		if load == 0 {
			return nil, 0, fmt.Errorf("%w: no load for workload %s; give one from %v to 1", ErrConfig, name, minLoad)
		}
		gap := s.Mean() / load / float64(cores) * float64(n)
		return slices.Repeat([]Instance{{Source: Poisson{Gap: gap, Service: s}, Kthreads: kthreads}}, n), load, nil
	}
	arrivals, err := readFile(name)
	if err != nil {
		return nil, 0, err
	}
	return replay(arrivals, load, cores, n, kthreads)
}

func readFile(name string) ([]Arrival, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q; take %s or a file", ErrWorkload, name, strings.Join(Workloads(), ", "))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	arrivals, err := ReadArrivals(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return arrivals, nil
}

// replay deals arrivals out to n instances in turns.
func replay(arrivals []Arrival, load float64, cores, n, kthreads int) ([]Instance, float64, error) {
	work := 0.0
	for _, a := range arrivals {
		work += float64(a.Job.Service)
	}
	span := float64(arrivals[len(arrivals)-1].At)
	recorded, stretch := 0.0, 1.0
	if span > 0 {
		recorded = work / span / float64(cores)
	}
	if load > 0 {
		if span == 0 {
			return nil, 0, fmt.Errorf("%w: all requests of the file come at once, which is no load to scale", ErrConfig)
		}
		stretch, recorded = recorded/load, load
	}
	all := make([]Instance, n)
	for i := range all {
		r := &Recorded{Stretch: stretch}
		for k := i; k < len(arrivals); k += n {
			r.Arrivals = append(r.Arrivals, arrivals[k])
		}
		all[i] = Instance{Source: r, Kthreads: kthreads}
	}
	return all, recorded, nil
}

// MaxArrivals is how many requests a file holds at most.
const MaxArrivals = 10_000_000

// ReadArrivals reads a line for each request, in the order of arrival:
//
//	ARRIVAL_US SERVICE_US [short|long] [DEADLINE_US]
//
// with times as decimal fractions, the deadline counted from the arrival. Empty
// lines and what follows a # do not count.
func ReadArrivals(r io.Reader) ([]Arrival, error) {
	var all []Arrival
	in := bufio.NewScanner(r)
	n := 1
	for ; in.Scan(); n++ {
		text, _, _ := strings.Cut(in.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		a, err := parseArrival(fields)
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d: %w; write ARRIVAL_US SERVICE_US [short|long] [DEADLINE_US]", n, err)
		case len(all) > 0 && a.At < all[len(all)-1].At:
			return nil, fmt.Errorf("%w: line %d comes before the one above it; sort the file", ErrFile, n)
		case len(all) == MaxArrivals:
			return nil, fmt.Errorf("%w: more than %d requests", ErrFile, MaxArrivals)
		}
		all = append(all, a)
	}
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%w: line %d is longer than %d bytes", ErrFile, n, bufio.MaxScanTokenSize)
	} else if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: no request in it", ErrFile)
	}
	return all, nil
}

func parseArrival(fields []string) (a Arrival, err error) {
	times := fields
	if len(fields) >= 3 && (fields[2] == "short" || fields[2] == "long") {
		a.Job.Long = fields[2] == "long"
		times = slices.Delete(slices.Clone(fields), 2, 3)
	} else if len(fields) > 2 {
		return a, fmt.Errorf("%w: %q is neither short nor long", ErrFile, fields[2])
	}
	if len(times) < 2 || len(times) > 3 {
		return a, fmt.Errorf("%w: %d fields", ErrFile, len(fields))
	}
	into := []*cs.Time{&a.At, &a.Job.Service, &a.Job.Within}
	for i, text := range times {
		if *into[i], err = parseMicros(text); err != nil {
			return a, err
		}
	}
	a.Job.Service = max(a.Job.Service, 1)
	return a, nil
}

// parseMicros reads microseconds, up to an hour.
func parseMicros(text string) (cs.Time, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > float64(time.Hour.Microseconds()) {
		return 0, fmt.Errorf("%w: %q is no number of microseconds, of an hour at most", ErrFile, text)
	}
	return cs.Time(v*1000 + 0.5), nil
}
