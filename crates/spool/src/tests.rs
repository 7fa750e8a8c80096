mod basics;
mod limit;
