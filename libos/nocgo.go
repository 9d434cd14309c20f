//go:build !cgo

package libos

const usesCgo = false
