//go:build cgo

package libos

// usesCgo: glibc registers an rseq area in each thread, which the processes
// that systrap forks inherit. They unmap it with the rest of the address
// space, and the host kernel then kills or stalls them.
const usesCgo = true
