package bench

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
)

// pinning says which CPU servers and clients stay on; -1 is any.
type pinning struct{ server, client int }

// pin gives servers the first CPU and clients the second, if there are two.
func pin(o Options) (pinning, error) {
	cpus, err := allowedCPUs()
	if err != nil {
		return pinning{}, err
	}
	if o.NoPin || len(cpus) < 2 {
		return pinning{-1, -1}, nil
	}
	return pinning{cpus[0], cpus[1]}, nil
}

func (p pinning) String() string {
	if p.server < 0 {
		return "not pinned"
	}
	return fmt.Sprintf("server on CPU %d, client on CPU %d (start-up and memory not pinned)", p.server, p.client)
}

// hostPort is where the server serves.
func hostPort(port int) string { return net.JoinHostPort(address().String(), strconv.Itoa(port)) }

// diagnosis returns what a program printed to standard error before it failed.
func diagnosis(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || len(exit.Stderr) == 0 {
		return ""
	}
	return fmt.Sprintf(": %.300q", exit.Stderr)
}
