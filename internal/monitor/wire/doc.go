// Package wire is what the monitor and the processes around it say to each
// other over the control connection: messages, as JSON, in control.Raw.
//
// Every connection begins with a Hello each way whose Features say who the
// caller is: an instance, a network server or an operator. Then:
//
//	instance  → Join             ← Joined, control.Rings for its side, Escrow
//	          → Bind             ← Bound, or control.Error with an errno
//	          → Close            ← Closed
//	          ← Ask              → Answer, or control.Error
//	          ← Switch           → Switch (package protocol)
//	server    → Back             ← Setup, with the portmap's view and the uplink's
//	                               queues, once it is to serve; until then it is a spare
//	          → Ready
//	          ← Attach, then control.Rings for the server's side
//	          ← Begin
//	          ← Detach
//	          ← Ping             → Pong
//	          ← Ask              → Answer
//	          → Broken
//	operator  → Ask              ← Answer, or control.Error
//
// A monitor that takes over from one that died finds instances where their
// Escrow's listener is: it connects, and after the Hellos
//
//	instance  → Rejoin, then control.Rings for the server's side   ← Joined
//
// and goes on as above. The network server connects again by itself.
//
// An answer repeats the id of its request. A value that does not fit into one
// message comes in several of the same id and type.
package wire

import "os"

// Version of this protocol.
const Version = 1

// Roles, as Hello.Features.
const (
	RoleInstance uint64 = 1 << iota
	RoleServer
	RoleOperator
)

// Types of messages.
const (
	TypeJoin uint16 = 256 + iota
	TypeJoined
	TypeBind
	TypeBound
	TypeClose
	TypeClosed
	TypeSetup
	TypeReady
	TypeAttach
	TypeDetach
	TypePing
	TypePong
	TypeAsk
	TypeAnswer
	TypeBroken
	TypeEscrow
	TypeRejoin
	TypeBack
	TypeBegin
	TypeSwitch
)

// SocketPath is where the monitor listens unless told otherwise: the
// environment's JUNCTION_SOCKET, or the usual path.
func SocketPath() string {
	if p := os.Getenv("JUNCTION_SOCKET"); p != "" {
		return p
	}
	return "/run/junction/monitor.sock"
}
