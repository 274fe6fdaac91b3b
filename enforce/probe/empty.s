// Lets Go accept function declarations without a body (go:linkname).
