package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
)

// stream is an endless stream of bytes that follow from the seed, the same as guest http's /data.
func stream(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// pattern returns the first n bytes of a stream.
func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(stream(seed), b) // never fails
	return b
}

// hashOf returns the SHA-256 of the first n bytes of a stream.
func hashOf(seed byte, n int64) string {
	h := sha256.New()
	_, _ = io.CopyN(h, stream(seed), n) // never fails
	return hex.EncodeToString(h.Sum(nil))
}

// hashAll returns the SHA-256 of all that r holds, and its size.
func hashAll(r io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), n, err
}
