package e2e

import (
	"encoding/json"
	"strings"

	"github.com/stretchr/testify/require"
)

// report is what --stats=json prints, as far as the tests read it.
type report struct {
	Schema        int     `json:"schema"`
	Mode          string  `json:"mode"`
	Engine        string  `json:"engine"`
	ExitCode      int     `json:"exit_code"`
	Syscalls      uint64  `json:"syscalls"`
	UserSeconds   float64 `json:"user_seconds"`
	SystemSeconds float64 `json:"system_seconds"`
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

// checkStats checks the statistics of an instance that has served.
func (i *instance) checkStats() {
	i.t.Helper()
	r := i.report()
	require.Equal(i.t, i.code, r.ExitCode)
	require.NotZero(i.t, r.Syscalls)
}
