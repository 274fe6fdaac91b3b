// true: nothing at all, for a container without a system and as the head of a
// large program.
int main(void) { return 0; }
