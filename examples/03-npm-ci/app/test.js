// Uses a plain package, a native addon, and a native program from node_modules.
const assert = require("node:assert");
const chalk = require("chalk");
const semver = require("semver");
const { crc32 } = require("@node-rs/crc32");
const esbuild = require("esbuild");

assert(semver.satisfies("1.4.2", "^1.2.0"));
assert.strictEqual(crc32("exeq"), 0x48d63f8d);
const { code } = esbuild.transformSync("const x: number = 1; export default x", { loader: "ts" });
assert(code.includes("export default x"));
console.log(chalk.bold("all well"));
