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
	// canaryMap is exit_group(-mmap(0, 4096, PROT_READ|PROT_EXEC, MAP_PRIVATE, 3, 0)):
	// of an address, the last eight bits are 0.
	canaryMap = []byte{
		0x31, 0xff, // xor edi, edi
		0xbe, 0, 0x10, 0, 0, // mov esi, 4096
		0xba, 5, 0, 0, 0, // mov edx, PROT_READ|PROT_EXEC
		0x41, 0xba, 2, 0, 0, 0, // mov r10d, MAP_PRIVATE
		0x41, 0xb8, 3, 0, 0, 0, // mov r8d, 3
		0x45, 0x31, 0xc9, // xor r9d, r9d
		0xb8, 9, 0, 0, 0, // mov eax, mmap
		0x0f, 0x05, // syscall
		0xf7, 0xd8, // neg eax
		0x89, 0xc7, // mov edi, eax
		0xb8, 231, 0, 0, 0, // mov eax, exit_group
		0x0f, 0x05, // syscall
	}
	// canaryOpen is exit_group(-openat(AT_FDCWD, base+0x200, O_RDONLY|O_DIRECTORY, 0)):
	// of a descriptor, that is 0, for it has no other.
	canaryOpen = []byte{
		0xbf, 0x9c, 0xff, 0xff, 0xff, // mov edi, AT_FDCWD
		0xbe, 0, 2, 0x40, 0, // mov esi, canaryBase+canaryAddress
		0xba, 0, 0, 1, 0, // mov edx, O_DIRECTORY
		0x45, 0x31, 0xd2, // xor r10d, r10d
		0xb8, 1, 1, 0, 0, // mov eax, openat
		0x0f, 0x05, // syscall
		0xf7, 0xd8, // neg eax
		0x89, 0xc7, // mov edi, eax
		0xb8, 231, 0, 0, 0, // mov eax, exit_group
		0x0f, 0x05, // syscall
	}
)
