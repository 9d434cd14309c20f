package modeswitch

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// arrivals is what two paths bring: each in the order of its stamps.
type arrivals struct {
	lanes [2][]uint32
	lost  map[uint32]bool
}

// split gives the stamps from 1 to n to the paths, loses some, and lets some come again
// on the path that they came by.
func split(t *rapid.T, n int) arrivals {
	a := arrivals{lost: make(map[uint32]bool)}
	flip := rapid.IntRange(0, n).Draw(t, "flip")
	for stamp := range uint32(n) {
		stamp++
		lane := oldLane
		if int(stamp) > flip {
			lane = newLane
		}
		switch rapid.IntRange(0, 19).Draw(t, "fate") {
		case 0:
			a.lost[stamp] = true
		case 1:
			a.lanes[lane] = append(a.lanes[lane], stamp, stamp)
		case 2: // the flip is seen late by another CPU
			a.lanes[1-lane] = append(a.lanes[1-lane], stamp)
		default:
			a.lanes[lane] = append(a.lanes[lane], stamp)
		}
	}
	return a
}

// Whatever the interleaving: each frame that came is delivered once; in order,
// unless one was waited for too long; and nothing is held longer than allowed.
func TestSequencer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const hold = 100
		n := rapid.IntRange(1, 300).Draw(t, "frames")
		a := split(t, n)
		s := &sequencer{hold: hold}
		var got []uint32
		deliver := func(_ uint8, f []byte) { got = append(got, binary.BigEndian.Uint32(f)) }
		now, at, duplicates, came := time.Duration(0), [2]int{}, 0, 0
		deadline := time.Duration(0)
		tick := func(d time.Duration) {
			now += d
			if s.held > 0 && now >= deadline {
				deadline = s.expire(now, deliver)
			}
		}
		expired := false
		for at[0] < len(a.lanes[0]) || at[1] < len(a.lanes[1]) {
			lane := uint8(rapid.IntRange(0, 1).Draw(t, "lane"))
			if at[lane] == len(a.lanes[lane]) {
				lane = 1 - lane
			}
			if rapid.IntRange(0, 30).Draw(t, "pause") == 0 {
				tick(hold)
				expired = true
			}
			stamp := a.lanes[lane][at[lane]]
			at[lane]++
			came++
			held := s.held
			if !s.add(lane, stamp, binary.BigEndian.AppendUint32(nil, stamp), now, deliver) {
				duplicates++
			}
			if held == 0 && s.held > 0 {
				deadline = now + hold
			}
			for i := range s.slots {
				if s.slots[i].here && now-s.slots[i].since > (patience+1)*hold {
					t.Fatalf("held for %v", now-s.slots[i].since)
				}
			}
			if at[lane] == len(a.lanes[lane]) {
				s.end(lane, now, deliver)
			}
		}
		s.end(oldLane, now, deliver)
		s.end(newLane, now, deliver)
		s.flush(now, deliver)
		require.Zero(t, s.held)
		require.Equal(t, came, len(got)+duplicates)
		require.EqualValues(t, duplicates, s.figures.Duplicates)
		require.Equal(t, n-len(a.lost), len(got), "each once")
		sorted := slices.Clone(got)
		slices.Sort(sorted)
		require.Len(t, slices.Compact(sorted), len(got))
		if !expired {
			require.True(t, slices.IsSorted(got), "%v", got)
			require.Zero(t, s.figures.Reordered)
		}
		trailing := 0 // losses after the last frame that came are not seen
		for stamp := uint32(n); a.lost[stamp]; stamp-- {
			trailing++
		}
		require.EqualValues(t, len(a.lost)-trailing, s.figures.Lost)
	})
}

// A frame is waited for as long as its path brings others, but not for ever.
func TestSequencerPatience(t *testing.T) {
	s := &sequencer{hold: 10}
	var got []uint32
	deliver := func(_ uint8, f []byte) { got = append(got, binary.BigEndian.Uint32(f)) }
	add := func(lane uint8, stamp uint32, now time.Duration) {
		require.True(t, s.add(lane, stamp, binary.BigEndian.AppendUint32(nil, stamp), now, deliver))
	}
	add(oldLane, 1, 0)
	add(newLane, 100, 1)
	for n := range uint32(2) {
		now := time.Duration(n+1) * 8
		add(oldLane, 2+n, now)
		require.Equal(t, now+10, s.expire(now+9, deliver), "the old path brings more")
	}
	require.EqualValues(t, 26, s.expire(25, deliver))
	add(newLane, 101, 25)
	require.Equal(t, []uint32{1, 2, 3}, got)
	require.EqualValues(t, 0, s.expire(26, deliver), "it has brought none for long enough")
	require.Equal(t, []uint32{1, 2, 3, 100, 101}, got)

	add(newLane, 200, 50)
	for now := time.Duration(51); now < 50+patience*10; now++ {
		add(oldLane, 52+uint32(now), now)
		require.NotZero(t, s.expire(now, deliver))
	}
	require.Zero(t, s.expire(50+patience*10, deliver), "no longer, whatever it brings")
	require.Contains(t, got, uint32(200))
}

// A frame that does not come holds up others for a bounded time and number.
func TestSequencerBounds(t *testing.T) {
	s := &sequencer{hold: 10}
	var got []uint32
	deliver := func(_ uint8, f []byte) { got = append(got, binary.BigEndian.Uint32(f)) }
	add := func(lane uint8, stamp uint32, now time.Duration) bool {
		return s.add(lane, stamp, binary.BigEndian.AppendUint32(nil, stamp), now, deliver)
	}
	require.True(t, add(newLane, 3, 0))
	require.Empty(t, got)
	require.EqualValues(t, 10, s.expire(9, deliver))
	require.Zero(t, s.expire(10, deliver))
	require.Equal(t, []uint32{3}, got)
	require.True(t, add(oldLane, 1, 11), "late, and wanted")
	require.False(t, add(oldLane, 1, 11), "the second time it is not")
	require.False(t, add(newLane, 3, 11))
	require.Equal(t, []uint32{3, 1}, got)
	require.True(t, add(newLane, 5, 12))
	require.True(t, add(newLane, 5+window, 12))
	require.Equal(t, []uint32{3, 1, 5}, got, "no more than the window is held")
	s.flush(12, deliver)
	require.Equal(t, []uint32{3, 1, 5, 5 + window}, got)
	require.EqualValues(t, 2, s.figures.Duplicates)
	require.EqualValues(t, 1, s.figures.Reordered)
}
