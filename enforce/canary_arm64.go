//go:build linux

package enforce

const canaryMachine = 183 // EM_AARCH64

// canaryCode is exit_group(99).
var canaryCode = []byte{
	0x60, 0x0c, 0x80, 0xd2, // mov x0, #99
	0xc8, 0x0b, 0x80, 0xd2, // mov x8, #94 (exit_group)
	0x01, 0x00, 0x00, 0xd4, // svc #0
}
