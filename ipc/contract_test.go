package ipc_test

import (
	"junction/ipc"
	modeswitch "junction/switch"
)

// An End can stand where a device's queue stands.
var _ modeswitch.Queue = (*ipc.End)(nil)
