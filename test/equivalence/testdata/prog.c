// A program that only ends; what is appended to its file makes it another.
void _start(void) {
	for (;;) {
#if defined(__x86_64__)
		__asm__ volatile("syscall" : : "a"(231), "D"(41) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
		register long x8 __asm__("x8") = 94, x0 __asm__("x0") = 41;
		__asm__ volatile("svc 0" : : "r"(x8), "r"(x0) : "memory");
#endif
	}
}
