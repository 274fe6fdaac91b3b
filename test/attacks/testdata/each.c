// Runs one command after the other in one execution, each a line of words, and
// puts a mark and its status behind what it wrote. The mark is the list's first
// line: arguments are seen in /proc.
#include "attack.h"
int main(int argc, char **argv) { // file of lines
	static char line[8192], mark[256];
	if (argc < 2) return 2;
	FILE *f = fopen(argv[1], "re");
	if (!f || !fgets(mark, sizeof mark, f)) refused("the list");
	mark[strcspn(mark, "\n")] = 0;
	TRY(dup2(1, 2));
	while (fgets(line, sizeof line, f)) {
		char *words[64], **w = words;
		for (char *p = strtok(line, " \n"); p && w < words + 63; p = strtok(NULL, " \n")) *w++ = p;
		*w = NULL;
		pid_t p = TRY(fork());
		if (p == 0) {
			execv(words[0], words);
			dprintf(1, "execv: %s\n", strerror(errno));
			_exit(126); // without a word to the list, whose place both share
		}
		int st;
		TRY(waitpid(p, &st, 0));
		printf("%s %d\n", mark, WIFSIGNALED(st) ? 128 + WTERMSIG(st) : WEXITSTATUS(st));
		fflush(stdout);
	}
}
