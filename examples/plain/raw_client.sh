#!/bin/bash
# A client of the raw wire without a program: raw_client.sh PORT COMMAND
# bash can't half-close, so the command says the last word itself.
exec 3<>"/dev/tcp/127.0.0.1/$1"
printf '%s\necho end-of-reply' "$2" >&3
while IFS= read -r line <&3 && [ "$line" != end-of-reply ]; do
    printf '%s\n' "$line"
done
