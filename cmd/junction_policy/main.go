// Command junction_policy is the process that a policy of core scheduling runs
// in. It is started by whoever schedules, not by hand.
package main

import (
	"fmt"
	"os"
	"strings"

	"junction/internal/usage"
)

func main() {
	if err := newCommand().Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "junction_policy: %s\n", strings.Join(strings.Fields(err.Error()), " "))
		os.Exit(usage.ExitCode(err))
	}
}
