package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// reportSignals writes the name of each signal; SIGTERM ends it.
func reportSignals([]string) error {
	c := make(chan os.Signal, 16)
	signal.Notify(c, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGWINCH, unix.SIGUSR1, unix.SIGUSR2, unix.SIGQUIT)
	ready()
	for s := range c {
		fmt.Println(unix.SignalName(s.(syscall.Signal)))
		if s == unix.SIGTERM {
			os.Exit(7)
		}
	}
	return nil
}
