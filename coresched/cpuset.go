package coresched

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// CPUSet is a set of cores. The zero value is empty.
type CPUSet [MaxCPUs / 64]uint64

// FirstCPUs returns the cores 0 to n-1.
func FirstCPUs(n int) (s CPUSet) {
	for c := range CPU(min(n, MaxCPUs)) {
		s.Add(c)
	}
	return s
}

func (c CPU) valid() bool { return c >= 0 && c < MaxCPUs }

// Has tells whether c is in s.
func (s *CPUSet) Has(c CPU) bool { return c.valid() && s[c/64]>>(c%64)&1 != 0 }

// Add puts c, from 0 to MaxCPUs-1, into s. Others are ignored.
func (s *CPUSet) Add(c CPU) {
	if c.valid() {
		s[c/64] |= 1 << (c % 64)
	}
}

// Remove takes c out of s.
func (s *CPUSet) Remove(c CPU) {
	if c.valid() {
		s[c/64] &^= 1 << (c % 64)
	}
}

// Next returns the first core of s from c on, or NoCPU.
func (s *CPUSet) Next(c CPU) CPU {
	c = max(c, 0)
	if c >= MaxCPUs {
		return NoCPU
	}
	word := s[c/64] >> (c % 64) << (c % 64)
	for i := int(c / 64); ; word = s[i] {
		if word != 0 {
			return CPU(i*64 + bits.TrailingZeros64(word))
		}
		if i++; i == len(s) {
			return NoCPU
		}
	}
}

// Len returns the number of cores in s.
func (s *CPUSet) Len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Empty tells whether there is no core in s.
func (s *CPUSet) Empty() bool { return *s == CPUSet{} }

// String returns the set as Linux does, such as "0-3,8".
func (s CPUSet) String() string {
	var parts []string
	for c := s.Next(0); c != NoCPU; {
		last := c
		for s.Has(last + 1) {
			last++
		}
		part := strconv.Itoa(int(c))
		if last > c {
			part += "-" + strconv.Itoa(int(last))
		}
		parts = append(parts, part)
		c = s.Next(last + 1)
	}
	return strings.Join(parts, ",")
}

var errCPUList = errors.New("not a list of cores such as 0-3,8")

// ParseCPUSet reads what String writes.
func ParseCPUSet(text string) (s CPUSet, err error) {
	if text == "" {
		return s, nil
	}
	for _, part := range strings.Split(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(first, 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || a > b || b >= MaxCPUs {
			return CPUSet{}, fmt.Errorf("%q: %w, each below %d", text, errCPUList, MaxCPUs)
		}
		for c := CPU(a); c <= CPU(b); c++ {
			s.Add(c)
		}
	}
	return s, nil
}
