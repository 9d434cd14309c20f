// Package version says what this program was built from.
package version

import (
	"fmt"
	"runtime/debug"
)

// String is the module's version or, in a build from a checkout, its commit.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v == "(devel)" {
			v = s.Value
		}
	}
	return fmt.Sprintf("%s %s", v, info.GoVersion)
}
