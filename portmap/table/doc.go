// Package table is the portmap's table in shared memory: what the monitor
// writes and the XDP program and the network server read.
//
// # Trust
//
// The monitor alone writes. Its Writer keeps two copies of the table equal:
//
//   - two BPF array maps (Maps), mapped by the monitor, read by XDP programs. A
//     descriptor of a BPF map lets its holder update the map without any
//     capability, and a read-only one cannot be mapped at all: no descriptor of
//     a map may ever reach a process that is not trusted like the monitor.
//   - a memfd, which a View in the network server maps. It is sealed with
//     F_SEAL_FUTURE_WRITE (memfd_create(2)): the monitor's mapping stays the
//     only writable one, whoever holds a descriptor and whatever their rights.
//
// A change reaches the memfd first and the maps some nanoseconds later.
//
// # Layout
//
// Everything is made of 64-bit words in the host's byte order, each read and
// written by one atomic access, so none is ever torn. See [Word] for the bits.
//
// Slots, the addresses (map "junction_addrs", at offset 0 of the memfd), are
// an open-addressed hash table of 32-byte slots:
//
//	slot 0      header: magic and version; hash seed; shared addresses and slots; 0
//	slot 1+i    address bytes 0-7, address bytes 8-15, word, 0
//
// Addresses are in network order, IPv4 as ::ffff:a.b.c.d. An address is in one
// of the [ProbeWindow] slots from hash(address) on, wrapping around. A search
// ends at the slot with the address, at a slot whose word is 0 (never used), or
// at the end of the window. A slot's address changes only while its word is
// free, and each store to a word raises its generation, so a reader that sees
// the same word before and after it compared the address has not mixed two
// addresses up. (A reader in BPF needs the same order of loads; x86 gives it.)
//
// Ports (map "junction_ports", behind the slots in the memfd) are 131,072
// words for each shared address: TCP's 65,536 ports, then UDP's. See [PortIndex].
//
// To find who owns a local endpoint: look its address up. If the word's kind is
// Dedicated, it is the answer. If it is Shared, its owner field is the shared
// address's index and the answer is the word at the PortIndex.
package table
