// Command guest holds small programs that end-to-end tests run inside an
// instance. It knows nothing of instances: it is an ordinary Linux program.
//
//	guest http ADDR            HTTP server: /hello, /sha256 (of the body), /data?n=BYTES&seed=N
//	guest tcpecho ADDR         TCP echo server
//	guest udpecho ADDR         UDP echo server
//	guest echo ADDR...         both, at each of the addresses
//	guest reopen PORT N        TCP echo server for one connection, on each of N ports in turn
//	guest dial N ADDR          N connections to a TCP echo server, one after another
//	guest signals              writes the name of each signal it gets; ends with code 7 at SIGTERM
//	guest stress SECONDS       is hard on what executes it; ends when standard input does, after that time
//	guest collect              garbage collection beside 10,000 goroutines; results on standard output
//
// Servers write "ready" to standard output when they listen.
package main

import (
	"fmt"
	"os"
)

var programs = map[string]func(args []string) error{
	"http":    serveHTTP,
	"tcpecho": echoTCP,
	"udpecho": echoUDP,
	"echo":    echo,
	"reopen":  reopen,
	"dial":    dial,
	"signals": reportSignals,
	"stress":  stress,
	"collect": collect,
}

func main() {
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: guest PROGRAM [ARGS]")
		os.Exit(2)
	}
	if err := programs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "guest %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// ready tells the test that the program listens or waits.
func ready() { fmt.Println("ready") }
