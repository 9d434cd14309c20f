package boundary

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// What this package does cannot be undone, so tests do it in a child: this
// test binary again, told by the environment what to be.
const childEnv = "JUNCTION_BOUNDARY_TEST_CHILD"

func TestMain(m *testing.M) {
	args := strings.Fields(os.Getenv(childEnv))
	if len(args) == 0 {
		os.Exit(m.Run())
	}
	if err := runChild(args); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(args []string) error {
	switch args[0] {
	case "violation":
		return childViolation(args[1], Violation(args[2]))
	case "privileges":
		return childPrivileges()
	case "tree":
		return childTree(args[1], args[2])
	case "inherited":
		return childInherited()
	}
	return fmt.Errorf("no such child: %s", args[0])
}
