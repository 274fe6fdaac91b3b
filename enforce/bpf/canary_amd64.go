//go:build linux

package bpf

const canaryMachine = 62 // EM_X86_64

var (
	// canaryExec is write(1, base, 1); exit_group(99).
	canaryExec = []byte{
		0xb8, 1, 0, 0, 0, // mov eax, write
		0xbf, 1, 0, 0, 0, // mov edi, 1
		0xbe, 0, 0, 0x40, 0, // mov esi, canaryBase
		0xba, 1, 0, 0, 0, // mov edx, 1
		0x0f, 0x05, // syscall
		0xbf, 99, 0, 0, 0, // mov edi, 99
		0xb8, 231, 0, 0, 0, // mov eax, exit_group
		0x0f, 0x05, // syscall
	}
	// canaryConnect is exit_group(-connect(socket(AF_INET, SOCK_STREAM, 0), base+0x200, 16)).
	canaryConnect = []byte{
		0xb8, 41, 0, 0, 0, // mov eax, socket
		0xbf, 2, 0, 0, 0, // mov edi, AF_INET
		0xbe, 1, 0, 0, 0, // mov esi, SOCK_STREAM
		0x31, 0xd2, // xor edx, edx
		0x0f, 0x05, // syscall
		0x89, 0xc7, // mov edi, eax
		0xbe, 0, 2, 0x40, 0, // mov esi, canaryBase+canaryAddress
		0xba, 16, 0, 0, 0, // mov edx, 16
		0xb8, 42, 0, 0, 0, // mov eax, connect
		0x0f, 0x05, // syscall
		0xf7, 0xd8, // neg eax
		0x89, 0xc7, // mov edi, eax
		0xb8, 231, 0, 0, 0, // mov eax, exit_group
		0x0f, 0x05, // syscall
	}
)
