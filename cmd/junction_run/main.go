// Command junction_run runs an unmodified Linux program in an instance: a
// library operating system with TCP/IP of its own, on NIC queues of its own.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
