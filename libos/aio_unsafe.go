package libos

import (
	"errors"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/sentry/mm"
)

// haveASIO is the offset of mm.MemoryManager's field that tells whether it goes
// by the platform's address space.
//
// Invariants: findOwnWay has found the field, a bool. Whoever reads it meanwhile
// sees one of two values that are right as long as the program executes, which it
// does until the call is over that sets it.
var haveASIO uintptr

func findOwnWay() error {
	f, ok := reflect.TypeFor[mm.MemoryManager]().FieldByName("haveASIO")
	if !ok || f.Type.Kind() != reflect.Bool {
		return errors.New("mm.MemoryManager of this version of gVisor has no field haveASIO")
	}
	haveASIO = f.Offset
	return nil
}

// goOwnWay makes the Sentry use m, and what is copied from it, by mappings of its own.
func goOwnWay(m *mm.MemoryManager) { *(*bool)(unsafe.Add(unsafe.Pointer(m), haveASIO)) = false }
