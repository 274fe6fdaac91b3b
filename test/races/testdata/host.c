// A program that does nothing but load the library beside it.
int main(void) { return 0; }
