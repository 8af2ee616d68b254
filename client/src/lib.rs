//! Run commands on other machines, and get them back whole.
