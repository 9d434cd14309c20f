//go:build !amd64

package engine

import (
	"fmt"
	"runtime"
)

func inprocNeeds() []Need {
	return []Need{{"architecture", fmt.Errorf("the in-process engine is for amd64, this is %s: use --engine systrap", runtime.GOARCH)}}
}

func inprocExtras() []Need { return nil }
