module github.com/exeq/exeq

go 1.26
