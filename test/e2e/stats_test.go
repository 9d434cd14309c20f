package e2e

import (
	"encoding/json"
	"strings"

	"github.com/stretchr/testify/require"
)

// report is what --stats=json prints, as far as the tests read it.
type report struct {
	Schema         int     `json:"schema"`
	Mode           string  `json:"mode"`
	Engine         string  `json:"engine"`
	ExitCode       int     `json:"exit_code"`
	Syscalls       uint64  `json:"syscalls"`
	UserSeconds    float64 `json:"user_seconds"`
	SystemSeconds  float64 `json:"system_seconds"`
	ElapsedSeconds float64 `json:"elapsed_seconds"`
	Kthreads       struct {
		Tokens int    `json:"tokens"`
		Waits  uint64 `json:"waits"`
		Yields uint64 `json:"yields"`
	} `json:"kthreads"`
	AddressSpaces *spacesReport `json:"address_spaces"` // of inproc
	Link          *linkReport   `json:"link"`
	Device        *deviceReport `json:"device"`
	Rings         *deviceReport `json:"rings"` // with a monitor, instead
	Queue         *deviceReport `json:"queue"` // beside them, after a switch
	TCP           struct {
		Retransmits uint64 `json:"retransmits"`
		Timeouts    uint64 `json:"timeouts"`
	} `json:"tcp"`
}

// spacesReport tells where programs executed.
type spacesReport struct {
	Total             uint64 `json:"total"`
	Inside            uint64 `json:"inproc"`
	Elsewhere         uint64 `json:"systrap"`
	Moves             uint64 `json:"moves"`
	SwitchesInside    uint64 `json:"inproc_switches"`
	SwitchesElsewhere uint64 `json:"systrap_switches"`
}

// linkReport are the counters between queues and stack.
type linkReport struct {
	RxPackets   uint64            `json:"rx_packets"`
	RxDelivered uint64            `json:"rx_delivered"`
	TxPackets   uint64            `json:"tx_packets"`
	TxSent      uint64            `json:"tx_sent"`
	TxWaiting   uint64            `json:"tx_waiting"`
	Drops       map[string]uint64 `json:"drops"`
}

// deviceReport are the counters of the NIC's queues, and what they really are.
type deviceReport struct {
	NIC        string            `json:"nic"`
	Driver     string            `json:"driver"`
	Queues     int               `json:"queues"`
	RxPackets  uint64            `json:"rx_packets"`
	RxBytes    uint64            `json:"rx_bytes"`
	TxPackets  uint64            `json:"tx_packets"`
	TxBytes    uint64            `json:"tx_bytes"`
	BadIndices uint64            `json:"bad_indices"`
	Drops      map[string]uint64 `json:"drops"`
}

// drops sums the drops of one direction.
func (l *linkReport) drops(prefix string) (n uint64) {
	for reason, count := range l.Drops {
		if strings.HasPrefix(reason, prefix) {
			n += count
		}
	}
	return n
}

// report finds the statistics in standard error.
func (i *instance) report() report {
	i.t.Helper()
	var r report
	for _, line := range strings.Split(i.stderr.String(), "\n") {
		if strings.HasPrefix(line, `{"schema":`) {
			require.NoError(i.t, json.Unmarshal([]byte(line), &r), line)
			return r
		}
	}
	i.t.Fatal("no statistics on standard error")
	return r
}

// checkStats checks the statistics of an instance that has served: packets in
// are packets out and drops, exactly.
func (i *instance) checkStats() report {
	i.t.Helper()
	r := i.report()
	require.Equal(i.t, i.code, r.ExitCode)
	require.NotZero(i.t, r.Syscalls)
	require.NotZero(i.t, r.UserSeconds+r.SystemSeconds)
	l, d := r.Link, r.Device
	if r.Rings != nil {
		d = r.Rings
		if q := r.Queue; q != nil {
			d.RxPackets, d.TxPackets = d.RxPackets+q.RxPackets, d.TxPackets+q.TxPackets
			d.BadIndices += q.BadIndices
		}
	}
	require.NotNil(i.t, l)
	require.NotNil(i.t, d)
	require.Equal(i.t, l.RxPackets, l.RxDelivered+l.drops("rx_"), "received = delivered + dropped: %+v", l)
	require.Equal(i.t, l.TxPackets, l.TxSent+l.TxWaiting+l.drops("tx_"), "to send = sent + waiting + dropped: %+v", l)
	// The device was asked after the link and may have received more. It counts
	// what it sends when that is flushed, which may be later still.
	require.NotZero(i.t, l.RxPackets)
	require.GreaterOrEqual(i.t, d.RxPackets, l.RxPackets)
	require.NotZero(i.t, l.TxSent)
	require.NotZero(i.t, d.TxPackets)
	require.Zero(i.t, d.BadIndices)
	return r
}
